/** Real paths, so that every page can be linked; the server answers each that App.svelte names with the same index.html. */
class Router {
  path = $state(normalise(location.pathname));

  constructor() {
    addEventListener('popstate', () => (this.path = normalise(location.pathname)));
    // Links of our own origin change the page without a reload; modified clicks keep their usual meaning.
    addEventListener('click', (event) => {
      if (event.defaultPrevented || event.button !== 0) return;
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = event.target instanceof Element ? event.target.closest('a') : null;
      if (link === null || link.target !== '' || link.origin !== location.origin || link.hash !== '') return;
      if (link.dataset.route === undefined) return;
      event.preventDefault();
      this.go(link.pathname);
    });
  }

  go(path: string): void {
    if (normalise(path) === this.path) return;
    history.pushState(null, '', path);
    this.path = normalise(path);
    scrollTo(0, 0);
  }
}

function normalise(path: string): string {
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
}

export const router = new Router();
