"""What the figures and the pictures of a run mean, a sentence each: for its report and its last lines."""

FIGURES = {
    "test_reconstruction_mse": "Squared error of a pixel in [0, 1], mean over the test images.",
    "prior_distance": "Sliced Wasserstein distance of the test codes from as many samples of the prior.",
    "train_prior_distance": "The same of as many training images: the rest is how test images differ.",
    "prior_distance_floor": "That between two samples of the prior: it cannot be expected below this.",
    "prior_distance_given_labels": "The distance from codes drawn for the labels of the test images.",
    "test_error_percent": "Test images that get a wrong label, in percent.",
    "validation_error_percent": "Validation images that get a wrong label, in percent: choose by this one.",
    "chosen_clusters": "Clusters that hold a test image; what is decoded of others means nothing.",
    "entropy_of_mean_prediction": "In nats: ln K where all K labels or clusters are used alike.",
    "mean_entropy_of_predictions": "In nats: 0 where every prediction is certain.",
    "labelled_images": "Training images whose label the model saw.",
    "test_component_accuracy": "Share of the test codes that lie in their class's part of the prior.",
    "component_accuracy_ceiling": "The same of codes drawn from the prior, whose parts overlap.",
    "label_swap_accuracy": "How often a separate reader sees the label that styles of test images get.",
    "label_swap_accuracy_worst": "The same of the label that is seen least often.",
    "generated_label_accuracy": "How often that reader sees the label that samples of the prior get.",
    "generated_label_accuracy_worst": "The same of the label that is seen least often.",
    "reader_test_error_percent": "Test images that the reader itself reads wrong, in percent.",
    "log_likelihood": "Mean log density of the test images, in nats, under windows on samples.",
    "log_likelihood_error": "The standard error of that mean.",
    "validation_log_likelihood": "The same mean of the validation images, to choose settings by.",
    "parzen_bandwidth": "Standard deviation of these windows, which the validation images choose.",
    "parzen_samples": "How many windows there are.",
    "epochs": "Length of the training.",
    "train_images_per_second": "Speed of the training, without the first call, which also traces the graph.",
    "wall_seconds": "Time in training, validation included, of the process that ended it.",
}

# In the order in which they are shown. An ending _LABEL stands for one file per label.
PICTURES = {
    "manifold": "The plane, decoded: each place shows what the decoder makes of it.",
    "manifold_components": "One row per class: codes along its part of the prior, decoded.",
    "codes": "Where the test images lie on the plane, a point each; compare with the prior.",
    "prior": "Samples of the prior on the same axes: where the codes should lie.",
    "styles": "A style per row, that of the image at the left, with every label, or each attribute switched.",
    "clusters": "One cluster a row: its head, and test images that belong to it.",
    "reconstructions": "Test images beside their reconstructions.",
    "samples": "Decoded samples of the prior: new images.",
    "curves": "How the training went; dotted lines are where D cannot tell codes from the prior.",
    "confusion": "Which labels are confused: a row per true label.",
    "interpolations": "Straight lines between the codes of test images, decoded.",
    "neighbours": "Samples beside the training images that are nearest to them: is it memory?",
    "outliers": "Test images that the model reconstructs worst, and those with the least probable codes.",
    "scatter_classes": "Every two axes of the code, coloured by class.",
    "scatter_logits": "Every two axes of the code, coloured by what D takes them for: above 0, the prior's.",
    "manifold_label_LABEL": "The plane, decoded with this label.",
}
# Worth opening first; the end of a run names them.
FIRST = ("manifold", "codes", "styles", "clusters", "reconstructions", "samples", "curves")
