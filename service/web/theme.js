// The theme that was chosen, before anything is painted; unless one was, the system's.
try {
  const chosen = localStorage.getItem("sichtbar-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden: then each visit begins as the system is.
}
