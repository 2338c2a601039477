// Whoever signs out leaves no key behind in the tab.
sessionStorage.removeItem("rerankd-key");
