"""HTTP in front of the engine. What a dialect says and hears is in `wire/`, nothing of it elsewhere."""
