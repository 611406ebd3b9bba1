"""To and from Hugging Face transformers: a decoder becomes one of its classes, and the other way.

`as_hugging_face` makes the model, `save` writes a run's as a folder that transformers loads, and
`from_hugging_face` reads such a folder, or anyone's of the same families. Needs transformers and
safetensors: ``pip install 'groundup[export]'``.
"""

from groundup.export.convert import as_hugging_face
from groundup.export.folder import Exported, ExportError, save
from groundup.model.hf_checkpoint import from_hugging_face

__all__ = ["ExportError", "Exported", "as_hugging_face", "from_hugging_face", "save"]
