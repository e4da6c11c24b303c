"""The page on which a trained model is walked through, in a browser on this machine."""
