"""What may be said: the configurations, their schema, and what differs from the released model.

Nothing heavy is imported here; every other package may import this one.
"""
