"""The packages, which pyproject.toml cannot find by itself: the folder `kernels` installs as fsis_jax.kernels.

Another package on PyPI owns the top-level name.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fsis_jax", "fsis_jax.*"]), "fsis_jax.kernels"],
    package_dir={"fsis_jax.kernels": "kernels"},
)
