"""`python -m fsis_jax ...` is `fsis ...`."""

from fsis_jax.cli import main

if __name__ == "__main__":
    main()
