"""Ways through the space of the codes, from one to another."""

import numpy as np

SAME_DIRECTION = 1e-6  # radians


def straight(first, last, n_steps):
    """Evenly spaced points of the straight line between two vectors (D,), both included: (n_steps, D)."""
    shares = np.linspace(0, 1, n_steps)[:, None]
    return (1 - shares) * first + shares * last


def great_circle(first, last, n_steps):
    """Points of the arc around the origin, by even angles; the distance from the origin changes evenly.

    Nearly all of a gaussian lies in a shell around the origin, which a straight line leaves. Where there is
    no arc, from the origin or within a line through it, the straight line is taken.

    Args:
        first, last: float (n_z,).
        n_steps: number of points, both ends included.

    Returns:
        float (n_steps, n_z).
    """
    norms = np.linalg.norm(first), np.linalg.norm(last)
    if min(norms) == 0:
        return straight(first, last, n_steps)
    one, other = first / norms[0], last / norms[1]
    angle = np.arccos(np.clip(one @ other, -1, 1))
    if min(angle, np.pi - angle) < SAME_DIRECTION:
        return straight(first, last, n_steps)
    shares = np.linspace(0, 1, n_steps)[:, None]
    directions = (np.sin((1 - shares) * angle) * one + np.sin(shares * angle) * other) / np.sin(angle)
    return directions * ((1 - shares) * norms[0] + shares * norms[1])
