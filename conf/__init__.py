"""What may be configured: the schema, YAML in layers, and differences from the released model.

Nothing heavy is imported here, so every other package may import this one. Begin with `load.py`.
"""
