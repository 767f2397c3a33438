"""Settings of the documentation site: `sphinx-build -W --keep-going -b html docs docs/_build/html` (extra `[docs]`)."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
# Cells of notebooks find the commands of the environment that builds the site, and the package of this folder.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
os.environ["COLUMNS"] = "100"
# The kernel of a notebook asks commands for colours, and they would draw a progress bar for each step into the page.
ipython = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, ipython, ignore_errors=True)
startup = ipython / "profile_default" / "startup"
startup.mkdir(parents=True)
(startup / "plain.py").write_text(
    "import os\nfor name in ('FORCE_COLOR', 'CLICOLOR_FORCE', 'CLICOLOR'):\n    os.environ.pop(name, None)\n"
    # a kernel runs commands in a terminal, whose progress bars would fill the page
    "os.environ['TERM'] = 'dumb'\n"
    "os.environ['HF_HUB_DISABLE_PROGRESS_BARS'] = '1'\n"
    # tqdm warns in every notebook without widgets, with the path of its file on this machine
    "import warnings\nwarnings.filterwarnings('ignore', message='IProgress not found')\n"
)
os.environ["IPYTHONDIR"] = str(ipython)

project = "dnagpt_fast"
author = "the dnagpt_fast developers"
project_copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "site_pages",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
smartquotes = False  # `--option` is not a dash

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence"]
myst_heading_anchors = 4

nb_execution_mode = "cache"
nb_execution_timeout = 900  # a minute of work, on a machine with other work
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
add_module_names = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "dnagpt_fast"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "dnagpt_fast"},
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": [], "your_species": []}  # they have no pages below them
