"""The dialects, one file each. Adding one: its file, and its lines in `api_routes`."""

from __future__ import annotations

from typing import Any

from rerankd.apis.base import Api
from rerankd.apis.cohere import CohereV1, CohereV2
from rerankd.apis.dashscope import DashScopeCompatible, DashScopeNative
from rerankd.apis.infinity import Infinity
from rerankd.apis.jina import Jina
from rerankd.apis.llamacpp import LlamaCpp
from rerankd.apis.mixedbread import Mixedbread
from rerankd.apis.nim import NIM
from rerankd.apis.sglang import SGLang
from rerankd.apis.tei import TEIPredict, TEIRerank
from rerankd.apis.vllm_rerank import VLLMRerank, VLLMScore
from rerankd.apis.voyage import Voyage, VoyageShared
from rerankd.apis.xinference import Xinference
from rerankd.config import ServerSettings

Routes = dict[tuple[str, str], tuple[Api[Any], ...]]


def api_routes(settings: ServerSettings) -> Routes:
    """(method, path) → the dialects it may be spoken to in. The body tells which; the last takes what none claims."""
    rerank, score = VLLMRerank(settings), VLLMScore(settings)
    voyage, mixedbread = VoyageShared(settings), Mixedbread(settings)
    tei, tei_predict = TEIRerank(settings), TEIPredict(settings)
    infinity, llamacpp, sglang = Infinity(settings), LlamaCpp(settings), SGLang(settings)
    nim = NIM(settings)
    posted: dict[str, tuple[Api[Any], ...]] = {
        "/api/v1/services/rerank/text-rerank/text-rerank": (DashScopeNative(settings),),
        "/compatible-api/v1/reranks": (DashScopeCompatible(settings, documents_by_default=True),),
        "/v1/reranks": (DashScopeCompatible(settings, documents_by_default=False),),
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
        "/cohere/v1/rerank": (CohereV1(settings),),
        "/cohere/v2/rerank": (CohereV2(settings),),
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
