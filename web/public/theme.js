// Before the first paint, so that a dark page never flashes white. A file of its own because the page's policy
// allows no inline script.
try {
  const theme = localStorage.getItem('aiv.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is off: the system's preference decides.
}
