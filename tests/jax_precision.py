"""The precision of JAX for a while, by the name that the installed JAX has for it."""


def enable_x64(wide):
    """A context in which JAX keeps float64 as it is, or makes float32 of it."""
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(wide)
    import jax.experimental  # where it is before 0.8

    return jax.experimental.enable_x64(wide)
