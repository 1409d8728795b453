from .engine import Engine as Engine
from .engine import Load as Load
from .request import ClosedError as ClosedError
from .request import DeadlineError as DeadlineError
from .request import FullError as FullError
from .request import Progress as Progress
from .request import Request as Request
