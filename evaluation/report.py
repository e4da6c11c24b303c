"""What the figures of metrics.json mean, in words."""

PICTURES = {
    "manifold.png": "the plane, decoded",
    "codes.png": "where the test images lie on it",
    "styles.png": "every label in one style",
    "reconstructions.png": "test images beside their reconstructions",
    "samples.png": "decoded samples of the prior",
    "curves.png": "how the training went",
}


def summary(metrics):
    """The figures as lines of text.

    Args:
        metrics: what metrics.json holds; figures that it lacks are left out.
    """
    m = metrics
    floors = m["prior_distance"] / m["prior_distance_floor"]
    lines = [
        f"reconstruction error {m['test_reconstruction_mse']:.4f}: mean squared error of a pixel in [0, 1]",
        f"prior distance {m['prior_distance']:.3f}, {floors:.1f} times what two samples of it differ by",
    ]
    if "test_error_percent" in m:
        lines.append(
            f"test error {m['test_error_percent']:.2f} %: images that get a wrong label "
            f"(validation {m['validation_error_percent']:.2f} %)"
        )
    if "test_component_accuracy" in m:
        lines.append(
            f"component accuracy {m['test_component_accuracy']:.1%}: codes in their class's part of it "
            f"(samples of the prior reach {m['component_accuracy_ceiling']:.1%})"
        )
    if "label_swap_accuracy" in m:
        lines.append(
            f"labels obeyed by {m['label_swap_accuracy']:.1%} of the styles of test images (worst label "
            f"{m['label_swap_accuracy_worst']:.1%})"
        )
        lines.append(
            f"labels obeyed by {m['generated_label_accuracy']:.1%} of the samples (worst label "
            f"{m['generated_label_accuracy_worst']:.1%})"
        )
    minutes = m["wall_seconds"] / 60
    lines.append(f"trained in {minutes:.1f} minutes, at {m['train_images_per_second']:.0f} images a second")
    return lines


def where_to_look(directory):
    """Lines that name the pictures of a run directory worth opening first, and its model."""
    there = [name for name in PICTURES if (directory / "plots" / name).is_file()]
    width = max((len(name) for name in there), default=0)
    return [f"Results: {directory}", *(f"  plots/{name:{width}}  {PICTURES[name]}" for name in there)]
