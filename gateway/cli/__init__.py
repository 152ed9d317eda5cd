"""Which commands does tidegate have?"""
