"""HTTP in front of the engine. The words of each API are in `rerankd.apis` only."""
