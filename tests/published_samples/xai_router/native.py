import requests

api_key = "your-api-key"

# DashScope native endpoint (proxied by XAI Router)
url = "https://api.xairouter.com/api/v1/services/rerank/text-rerank/text-rerank"

payload = {
    "model": "qwen3-rerank",
    "input": {
        "query": "What is a text reranking model?",
        "documents": [
            "Text reranking models are widely used in search engines and recommender systems to sort candidates by relevance.",
            "Quantum computing is a frontier field of computer science.",
            "The rise of pretrained language models has brought new advances to text reranking.",
        ],
    },
    "parameters": {
        "return_documents": True,
        "top_n": 5,
    },
}

resp = requests.post(
    url,
    headers={
        "Authorization": f"Bearer {api_key}",
        "Content-Type": "application/json",
    },
    json=payload,
    timeout=60,
)
resp.raise_for_status()
print(resp.json())
