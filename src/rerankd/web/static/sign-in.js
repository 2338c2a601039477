// Removes the API key from the tab after signing out.
sessionStorage.removeItem("rerankd-key");
