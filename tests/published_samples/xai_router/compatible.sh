# OpenAI-compatible rerank endpoint
curl --request POST --url https://api.xairouter.com/compatible-api/v1/reranks --header 'Authorization: Bearer YOUR_API_KEY' --header 'Content-Type: application/json' --data '{
    "model": "qwen3-rerank",
    "documents": [
      "Text reranking models are widely used in search engines and recommender systems to sort candidates by relevance.",
      "Quantum computing is a frontier field of computer science.",
      "The rise of pretrained language models has brought new advances to text reranking."
    ],
    "query": "What is a text reranking model?",
    "top_n": 2,
    "instruct": "Given a web search query, retrieve relevant passages that answer the query."
  }'