"""Package metadata. `pip install -c constraints.txt -e .[dev]` for a reproducible environment."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "darknet_py" / "__init__.py").read_text()).group(1)

setup(
    name="darknet_py",
    version=VERSION,
    description="Darknet .cfg networks, read, run, trained and converted in PyTorch",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["darknet_py", "darknet_py.*"]),
    package_data={"darknet_py.view": ["*.js", "*.css"]},
    install_requires=[
        "torch>=2.4",
        "numpy>=1.24",
        "opencv-python>=4.10",
        "pycocotools>=2.0.7",
        "tqdm>=4.64",
    ],
    extras_require={
        # Only for data.yaml files with more than lists, mappings and words.
        "yaml": ["pyyaml>=6"],
        # Only for `train --tensorboard`.
        "tensorboard": ["tensorboard>=2.12"],
        # pytest runs the tests, hypothesis invents broken cfgs for the parser, ruff and mypy check the code.
        "dev": ["pytest>=8", "hypothesis>=6", "ruff>=0.6", "mypy>=1.11"],
    },
    entry_points={"console_scripts": ["darknet-py=darknet_py.__main__:run"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
