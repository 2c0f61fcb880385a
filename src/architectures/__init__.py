"""What the network is.

The promise of every file here:

    Options     a pydantic model: what `model:` in params.yaml takes, with defaults
    build(frame, options)
                an uncompiled `keras.Model`: `frame.begin()` gives the raw input and what its first layers
                make of it, `frame.end()` adds the outputs (src.network); raises UserError for inputs that
                this kind of network does not take

One whose parameters applications need by other names than those of `model:` also exports
`describe(frame, options)`, a dictionary that stands in inference.json as `model_parameters`. One that freezes
layers also exports `unfreeze(model, start)`, which lets them learn for `fit.fine_tune`: from the layer named
`start` on, or all of them where it is None.

Only layers that Keras ships are used, so that anyone can load the model without this repository. Keras is
imported inside `build`: reading the options must not cost the seconds that it takes.
"""
