"""Prior distributions over the code. To add one: a class in its own file and a line here."""

PRIORS = {
    "gaussian": "priors.gaussian:Gaussian",
    "truncated_gaussian": "priors.gaussian:TruncatedGaussian",
    "gaussian_mixture": "priors.gaussian_mixture:GaussianMixture",
    "swiss_roll": "priors.swiss_roll:SwissRoll",
}

# Priors on the plane, which larger codes use as independent pairs: n_z must be even.
PLANAR_PRIORS = {"gaussian_mixture", "swiss_roll"}
