"""AllenNLP's ELMo: `Elmo`, `ElmoEmbedder`, `batch_to_ids`, `ScalarMix` and what is under them, as in version 0.9.

`from allennlp.modules.elmo import Elmo, batch_to_ids` and `from allennlp.commands.elmo import ElmoEmbedder` become
`from elmokit.compat.allennlp import ...`. As there, the LSTM state flows from one call to the next;
`elmo._elmo_lstm._elmo_lstm.reset_states()` forgets it, and `.stateful = False` stops it.
"""

from elmokit.compat.allennlp.elmo import Elmo as Elmo
from elmokit.compat.allennlp.elmo import ScalarMix as ScalarMix
from elmokit.compat.allennlp.elmo import _ElmoBiLm as _ElmoBiLm
from elmokit.compat.allennlp.elmo import _ElmoCharacterEncoder as _ElmoCharacterEncoder
from elmokit.compat.allennlp.elmo import batch_to_ids as batch_to_ids
from elmokit.compat.allennlp.elmo import remove_sentence_boundaries as remove_sentence_boundaries
from elmokit.compat.allennlp.embedder import DEFAULT_OPTIONS_FILE as DEFAULT_OPTIONS_FILE
from elmokit.compat.allennlp.embedder import DEFAULT_WEIGHT_FILE as DEFAULT_WEIGHT_FILE
from elmokit.compat.allennlp.embedder import ElmoEmbedder as ElmoEmbedder
from elmokit.errors import ElmoError

# What `except ConfigurationError` of old code is meant to catch.
ConfigurationError = ElmoError
