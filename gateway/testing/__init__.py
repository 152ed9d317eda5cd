"""What helps authors of front-ends to test them?"""
