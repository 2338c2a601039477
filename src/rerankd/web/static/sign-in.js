// Removes the API key and the playground's history after signing out.
sessionStorage.removeItem("rerankd-key");
sessionStorage.removeItem("rerankd-state");
localStorage.removeItem("rerankd-history");
