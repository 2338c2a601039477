"""Calibration: probabilities and thresholds from judged candidates, for one model, prompt and instruct."""
