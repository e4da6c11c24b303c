"""What the figures of metrics.json mean, in words."""

from evaluation.meanings import FIRST, PICTURES


def percent(share):
    """A share from 0 to 1 as text, written as the figures in percent are."""
    return f"{100 * share:.1f} %"


def summary(metrics):
    """The figures as lines of text.

    Args:
        metrics: what metrics.json holds; figures that it lacks are left out.
    """
    m = metrics
    floors, of_training = (
        m.get(name, 0) / m["prior_distance_floor"] for name in ("prior_distance", "train_prior_distance")
    )
    lines = [
        f"reconstruction error {m['test_reconstruction_mse']:.4f}: mean squared error of a pixel in [0, 1]",
        f"prior distance {m['prior_distance']:.3f}, {floors:.1f} times what two samples of it differ by"
        + (f" (training images {of_training:.1f} times)" if of_training else ""),
    ]
    if "test_error_percent" in m:
        lines.append(
            f"test error {m['test_error_percent']:.2f} %: images that get a wrong label "
            f"(validation {m['validation_error_percent']:.2f} %)"
        )
    if "chosen_clusters" in m:
        lines.append(f"{m['chosen_clusters']:.0f} clusters hold a test image")
    if "test_component_accuracy" in m:
        lines.append(
            f"component accuracy {percent(m['test_component_accuracy'])}: codes in their class's part of it "
            f"(samples of the prior reach {percent(m['component_accuracy_ceiling'])})"
        )
    if "label_swap_accuracy" in m:
        kind = "cluster" if "chosen_clusters" in m else "label"
        for whose, name in (("styles of test images", "label_swap"), ("samples", "generated_label")):
            share, worst = (percent(m[f"{name}_accuracy{ending}"]) for ending in ("", "_worst"))
            lines.append(f"{kind}s obeyed by {share} of the {whose} (worst {kind} {worst})")
    if "log_likelihood" in m:
        lines.append(
            f"log-likelihood {m['log_likelihood']:.1f} +- {m['log_likelihood_error']:.1f} nats: of the test "
            f"images, in windows {m['parzen_bandwidth']:.3f} wide on {m['parzen_samples']:.0f} samples"
        )
    if "wall_seconds" in m:
        minutes, rate = m["wall_seconds"] / 60, m["train_images_per_second"]
        lines.append(f"trained in {minutes:.1f} minutes, at {rate:.0f} images a second")
    return lines


def where_to_look(directory):
    """Lines that name the pictures of a run directory worth opening first, and the page with all of them."""
    there = {f"plots/{name}.png": PICTURES[name] for name in FIRST}
    there["report.html"] = "All of it on one page."
    found = {name: text for name, text in there.items() if (directory / name).is_file()}
    width = max(map(len, found), default=0)
    return [f"Results: {directory}", *(f"  {name:{width}}  {text}" for name, text in found.items())]
