"""What a model file is, how it is read safely, and how it becomes networks on a device."""
