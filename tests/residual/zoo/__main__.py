"""``python -m tests.residual.zoo`` prints the table; ``--write`` puts it on its page."""

import sys
import warnings

from tests.residual.zoo.table import PAGE, on_page, table

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of the libraries, about the specimens' settings
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(on_page(PAGE.read_text()))
    else:
        print(table(), end="")
