from eqm.serving.engine import Engine as Engine
from eqm.serving.engine import Load as Load
from eqm.serving.request import ClosedError as ClosedError
from eqm.serving.request import DeadlineError as DeadlineError
from eqm.serving.request import FullError as FullError
from eqm.serving.request import Progress as Progress
from eqm.serving.request import Request as Request
