"""Truth: does a dictionary find the features that a world is made of?"""
