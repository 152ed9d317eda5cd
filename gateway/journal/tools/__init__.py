"""What can be done with a journal from outside: look, check, copy, save?"""
