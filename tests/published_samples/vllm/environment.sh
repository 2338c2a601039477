export HEXGRID_API_KEY="your-hexgrid-api-key"
export QWEN_RERANK_BASE_URL="http://<server-ip>:<port>/v1"
export QWEN_RERANK_MODEL="Qwen/Qwen3-Reranker-4B"
