"""What the network is.

The promise of every file here:

    Options     a pydantic model: what `model:` in params.yaml takes, with defaults
    build(input_shape, input_dtype, units, activation, options)
                an uncompiled `keras.Model` from one raw input, as the task's encoder makes it, to `units`
                outputs with `activation`

Only layers that Keras ships are used, so that anyone can load the model without this repository. Keras is
imported inside `build`: reading the options must not cost the seconds that it takes.
"""
