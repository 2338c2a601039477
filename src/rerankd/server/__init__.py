"""HTTP in front of the engine. What a dialect says and hears is in `rerankd.apis`, nothing of it elsewhere."""
