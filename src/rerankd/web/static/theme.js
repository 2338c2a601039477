// Applies the chosen colours before the first paint, then sets up the button that changes them.
"use strict";
{
  const root = document.documentElement;
  const kept = (() => { try { return localStorage.getItem("rerankd-theme"); } catch { return null; } })();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;

  const NEXT = { auto: "light", light: "dark", dark: "auto" };
  const LOOKS = { auto: ["◐", "system"], light: ["☀", "light"], dark: ["☾", "dark"] };

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      const [sign, words] = LOOKS[root.dataset.theme ?? "auto"];
      button.firstElementChild.textContent = sign;
      button.setAttribute("aria-label", `Colours: ${words}`);
      button.title = `Colours: ${words}`;
    };
    button.addEventListener("click", () => {
      const theme = NEXT[root.dataset.theme ?? "auto"];
      if (theme === "auto") delete root.dataset.theme;
      else root.dataset.theme = theme;
      try { localStorage.setItem("rerankd-theme", theme); } catch { /* kept for this page only */ }
      show();
    });
    show();
  });
}
