"""What a train step has to do at the least, counted layer by layer."""

# Adam reads the weight, both moments and the gradient, and writes the weight and both moments.
ADAM_BYTES = 7 * 4


def dense_layers(n_in, n_hidden, n_out):
    """(inputs, outputs) of the layers of a `DenseNetwork`."""
    return [(n_in, n_hidden), (n_hidden, n_hidden), (n_hidden, n_out)]


def networks(n_pixels, n_z, n_classes, n_hidden):
    """Layers of the encoder, of the decoder, and of the supervised model's discriminator."""
    return (
        dense_layers(n_pixels, n_hidden, n_z),
        dense_layers(n_z, n_hidden, n_pixels),
        dense_layers(n_z + n_classes, n_hidden, 1),
    )


def forward(layers, batch):
    """Operations of the matrix products of a forward pass, a multiplication and an addition each."""
    return sum(2 * batch * n_in * n_out for n_in, n_out in layers)


# A layer's weight gradient (in x batch x out) and its input gradient (batch x out x in) take as many
# operations as its forward pass (batch x in x out).
weight_gradients = input_gradients = forward


def step_flops(batch, n_pixels, n_z, n_classes, n_hidden):
    """Operations of the matrix products of one supervised train step, by phase.

    Only what the three updates need: the first layer of a network whose input nobody trains has no
    input gradient, G needs no weight gradients of D, and D and G share a pass through the encoder.
    What is not a matrix product (noise, dropout, activations, losses) is not counted.
    """
    encoder, decoder, discriminator = networks(n_pixels, n_z, n_classes, n_hidden)
    encoder_gradients = weight_gradients(encoder, batch) + input_gradients(encoder[1:], batch)
    return {
        "ae": forward(encoder, batch)
        + forward(decoder, batch)
        + weight_gradients(decoder, batch)
        + input_gradients(decoder, batch)
        + encoder_gradients,
        "encoder pass of d and g": forward(encoder, batch),
        # Real and fake codes.
        "d": forward(discriminator, 2 * batch)
        + weight_gradients(discriminator, 2 * batch)
        + input_gradients(discriminator[1:], 2 * batch),
        "g": forward(discriminator, batch) + input_gradients(discriminator, batch) + encoder_gradients,
    }


def optimizer_bytes(n_pixels, n_z, n_classes, n_hidden):
    """Bytes that the three Adams read and write in one step; the encoder is updated by two of them."""
    encoder, decoder, discriminator = (
        sum((n_in + 1) * n_out for n_in, n_out in layers)
        for layers in networks(n_pixels, n_z, n_classes, n_hidden)
    )
    return ADAM_BYTES * (2 * encoder + decoder + discriminator)
