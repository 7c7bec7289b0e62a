"""Makes the methods beside this file known to the Python that finds it on its path, as a worker under test does."""

from pathlib import Path

import MedXlateCore.models

MedXlateCore.models.__path__.append(str(Path(__file__).resolve().parent / "methods"))
