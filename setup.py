"""Everything about the package is in pyproject.toml; here are only the folders that go into the wheel.

`cfg/` and `data/` stand at the top of the repository and are shipped as `darknet_py/_shipped/cfg` and `data`.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["darknet_py", "darknet_py.*"]),
        "darknet_py.serving.page",
        "darknet_py.view.templates",
        "darknet_py._shipped.cfg",
        "darknet_py._shipped.data",
    ]
)
