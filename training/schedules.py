"""Learning rates as functions of the epoch and of the validation errors before it."""

from models import LABEL_HEADS

PLATEAU_DIVISOR = 5  # second seed


def step(settings, epoch, validation_errors):
    """--lr_start, then --lr_mid, then --lr_end (first seed and paper)."""
    if epoch < settings.lr_mid_epoch:
        return settings.lr_start
    return settings.lr_mid if epoch < settings.lr_end_epoch else settings.lr_end


def plateau(settings, epoch, validation_errors):
    """--lr_start, divided by 5 at every plateau of the validation error (second seed)."""
    drops = count_plateaus(validation_errors, settings.lr_patience)
    return max(settings.lr_start / PLATEAU_DIVISOR**drops, min(settings.lr_floor, settings.lr_start))


SCHEDULES = {"step": step, "plateau": plateau}


def learning_rates(settings, epoch, validation_errors=()):
    """Learning rate of each phase of the model in an epoch, by the phase's name.

    Args:
        settings: a `Config`.
        epoch: from 0.
        validation_errors: of the epochs before.
    """
    rate = SCHEDULES[settings.lr_schedule](settings, epoch, validation_errors)
    d_rate = settings.d_rate * (rate if settings.d_rate_falls else settings.lr_start)
    rates = {"ae": rate, "d": d_rate, "g": rate * settings.g_rate}
    if settings.learns_labels:
        rates["ce"] = rate * settings.ce_rate
    if settings.model in LABEL_HEADS and settings.cycle:
        rates["cycle"] = rate * settings.cycle_rate
    if settings.model in LABEL_HEADS and settings.consistency:
        rates["consistency"] = rate * settings.consistency_rate
    if settings.model == "dimensionality_reduction":
        rates["heads"] = rate
    return rates


def updates(settings):
    """How many phases, each with an optimizer of its own, train the encoder, and how many the decoder.

    AE and G, the cross entropy or the cycle of clusters, and the consistency train the encoder; AE and the
    cycle the decoder.
    """
    phases = learning_rates(settings, 0)
    reads = "ce" in phases or ("cycle" in phases and settings.finds_clusters)
    return 2 + reads + ("consistency" in phases), 1 + ("cycle" in phases)


def count_plateaus(errors, patience):
    """How often `patience` epochs in a row brought no error below 0.999 of the smallest one before them."""
    best, waited, plateaus = float("inf"), 0, 0
    for error in errors:
        waited += 1
        if error < 0.999 * best:
            best, waited = error, 0
        if waited == patience:
            waited, plateaus = 0, plateaus + 1
    return plateaus
