"""Figures, pictures and animations of a trained model; nothing here trains."""
