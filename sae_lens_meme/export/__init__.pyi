from .corpus import export_corpus as export_corpus, push_corpus as push_corpus
from .hub import export_hub as export_hub, push_hub as push_hub
from .options import ExportOptions as ExportOptions
from .sae import mark_sae as mark_sae
from .sending import upload as upload, write_requests as write_requests
from .step import export as export
