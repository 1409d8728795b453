from .encoder import AboutText as AboutText
from .encoder import TextEncoder as TextEncoder
from .encoder import about_text as about_text
from .encoder import open_text as open_text
from .encoder import text_of as text_of
from .encoder import tokens_of as tokens_of
from .vocabulary import Vocabulary as Vocabulary
