"""The dialects, one file each. Adding one: its file, and its lines in `dialect_routes`."""

from __future__ import annotations

from typing import Any

from rerankd.apis.base import Dialect
from rerankd.apis.cohere import RerankV1, RerankV2
from rerankd.apis.dashscope import CompatibleReranks, NativeRerank
from rerankd.apis.infinity import InfinityRerank
from rerankd.apis.jina import Jina
from rerankd.apis.llamacpp import LlamaCppRerank
from rerankd.apis.mixedbread import Mixedbread
from rerankd.apis.nim import Ranking
from rerankd.apis.sglang import SGLangRerank
from rerankd.apis.tei import TEIPredict, TEIRerank
from rerankd.apis.vllm_rerank import Rerank, ScorePairs
from rerankd.apis.voyage import SharedVoyage, Voyage
from rerankd.apis.xinference import Xinference
from rerankd.config import ServerSettings

Routes = dict[tuple[str, str], tuple[Dialect[Any], ...]]


def dialect_routes(settings: ServerSettings) -> Routes:
    """(method, path) → the dialects it may be spoken to in. The body tells which; the last takes what none claims."""
    rerank, score = Rerank(settings), ScorePairs(settings)
    voyage, mixedbread = SharedVoyage(settings), Mixedbread(settings)
    tei, tei_predict = TEIRerank(settings), TEIPredict(settings)
    infinity, llamacpp, sglang = InfinityRerank(settings), LlamaCppRerank(settings), SGLangRerank(settings)
    nim = Ranking(settings)
    posted: dict[str, tuple[Dialect[Any], ...]] = {
        "/api/v1/services/rerank/text-rerank/text-rerank": (NativeRerank(settings),),
        "/compatible-api/v1/reranks": (CompatibleReranks(settings, documents_by_default=True),),
        "/v1/reranks": (CompatibleReranks(settings, documents_by_default=False),),
        "/v1/rerank": (tei, voyage, rerank),
        "/rerank": (tei, voyage, rerank),
        "/v2/rerank": (rerank,),
        "/v1/score": (score,),
        "/score": (score,),
        "/v1/reranking": (mixedbread, llamacpp),
        "/reranking": (mixedbread, llamacpp),
        "/predict": (tei_predict,),
        "/": (tei_predict, tei),
        "/invocations": (tei, rerank, score),
        "/v1/ranking": (nim,),
        "/v1/retrieval/{path:path}/reranking": (nim,),
        "/nim/v1/ranking": (nim,),
        "/cohere/v1/rerank": (RerankV1(settings),),
        "/cohere/v2/rerank": (RerankV2(settings),),
        "/jina/v1/rerank": (Jina(settings),),
        "/voyage/v1/rerank": (Voyage(settings),),
        "/mixedbread/v1/reranking": (mixedbread,),
        "/xinference/v1/rerank": (Xinference(settings),),
        "/tei": (tei_predict, tei),
        "/tei/rerank": (tei,),
        "/tei/predict": (tei_predict,),
        "/sglang/v1/rerank": (sglang,),
        "/llamacpp/rerank": (llamacpp,),
        "/llamacpp/v1/rerank": (llamacpp,),
        "/llamacpp/reranking": (llamacpp,),
        "/llamacpp/v1/reranking": (llamacpp,),
        "/infinity/rerank": (infinity,),
        f"{settings.infinity_prefix}/rerank": (infinity,),
    }
    put = {"/v1/rerank": (sglang,), "/sglang/v1/rerank": (sglang,)}
    routes = {("POST", path): dialects for path, dialects in posted.items()}
    return routes | {("PUT", path): dialects for path, dialects in put.items()}
