# DashScope native endpoint (proxied by XAI Router)
curl --location 'https://api.xairouter.com/api/v1/services/rerank/text-rerank/text-rerank' --header 'Authorization: Bearer YOUR_API_KEY' --header 'Content-Type: application/json' --data '{
    "model": "qwen3-rerank",
    "input": {
      "query": "What is a text reranking model?",
      "documents": [
        "Text reranking models are widely used in search engines and recommender systems to sort candidates by relevance.",
        "Quantum computing is a frontier field of computer science.",
        "The rise of pretrained language models has brought new advances to text reranking."
      ]
    },
    "parameters": {
      "return_documents": true,
      "top_n": 5
    }
  }'
