// The page as a whole: theme, intervals, printing.
(() => {
  'use strict';

  const root = document.documentElement;
  const theme = document.getElementById('theme');
  const intervals = document.getElementById('intervals');
  const system = matchMedia('(prefers-color-scheme: dark)');

  document.querySelector('.switches').hidden = false;
  intervals.hidden = !document.querySelector('.ci');

  function tell() {
    const dark = root.dataset.theme === 'auto' ? system.matches : root.dataset.theme === 'dark';
    theme.setAttribute('aria-pressed', dark);
    root.dispatchEvent(new CustomEvent('themechange'));
    return dark;
  }

  theme.addEventListener('click', () => {
    root.dataset.theme = theme.getAttribute('aria-pressed') === 'true' ? 'light' : 'dark';
    tell();
  });
  system.addEventListener('change', tell);
  intervals.addEventListener('click', () => {
    const shown = document.body.classList.toggle('with-intervals');
    intervals.setAttribute('aria-pressed', shown);
  });

  // Print in light colours and with all collapsed parts open.
  let before = null;
  addEventListener('beforeprint', () => {
    before = { theme: root.dataset.theme, closed: [...document.querySelectorAll('details:not([open])')] };
    root.dataset.theme = 'light';
    root.classList.add('printing');
    for (const details of before.closed) details.open = true;
    tell();
  });
  addEventListener('afterprint', () => {
    root.dataset.theme = before.theme;
    root.classList.remove('printing');
    for (const details of before.closed) details.open = false;
    tell();
  });

  tell();
})();
