"""Packages livestock_nb from settings.ini, the single source of its metadata; the wheel carries the notebooks and configs."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
pkg = cfg["lib_name"]
extras = {name: cfg[f"{name}_requirements"].split("\n")[1:] for name in ("dev", "docs", "edge", "ray")}

setup(
    name=pkg,
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    url=cfg["git_url"] or None,
    license=cfg["license"],
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    packages=[pkg, f"{pkg}.notebooks", f"{pkg}.configs"],
    package_dir={f"{pkg}.notebooks": "nbs", f"{pkg}.configs": "configs"},
    package_data={pkg: ["*.js", "*.css"], f"{pkg}.notebooks": ["*.ipynb"], f"{pkg}.configs": ["*.yaml", "*/*.yaml", "*/*.cfg"]},
    include_package_data=False,
    zip_safe=False,
    install_requires=cfg["requirements"].split("\n")[1:],
    extras_require=extras | {"dev": [need for names in extras.values() for need in names]},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{pkg}={pkg}._modidx:d"]},
)
