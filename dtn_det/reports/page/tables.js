// Tables: sorting by a header, filtering by names, hints, and moving through the cells with the arrow keys.
(() => {
  'use strict';

  const tip = document.getElementById('tip');
  const plain = (cell) => (cell.firstChild?.textContent ?? '').trim();

  for (const box of document.querySelectorAll('.table')) enhance(box);

  function enhance(box) {
    const table = box.querySelector('table');
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const headers = [];
    for (const header of table.querySelectorAll('th[data-c]')) headers[header.dataset.c] = header;
    headers.forEach((header, column) => makeSortable(header, headers, () => order(body, rows, headers, column)));
    makeFilters(box, rows, headers);
    makeWalkable(box, body, headers);
  }

  function makeSortable(header, headers, sort) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'sort';
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener('click', () => {
      const next = { none: 'ascending', ascending: 'descending', descending: 'none' }[header.ariaSort];
      for (const one of headers) one.ariaSort = 'none';
      header.ariaSort = next;
      sort();
    });
  }

  function order(body, rows, headers, column) {
    const direction = { none: 0, ascending: 1, descending: -1 }[headers[column].ariaSort];
    const numeric = headers[column].classList.contains('n');
    const key = (row) => {
      const cell = row.cells[column];
      if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
      return numeric ? null : plain(cell);
    };
    const keyed = rows.map((row, place) => ({ row, place, key: direction ? key(row) : null }));
    keyed.sort((one, other) => compare(one.key, other.key, direction) || one.place - other.place);
    body.append(...keyed.map(({ row }) => row));
  }

  function compare(one, other, direction) {
    // Missing values come last in both directions.
    if (one === null || other === null) return (one === null) - (other === null);
    const difference = typeof one === 'number' && typeof other === 'number'
      ? one - other
      : String(one).localeCompare(String(other), undefined, { numeric: true });
    return direction * difference;
  }

  function makeFilters(box, rows, headers) {
    const inputs = [...box.querySelectorAll('[data-filter]')];
    const found = box.querySelector('.found');
    const groups = [...box.querySelectorAll('thead .over')].map((header) => ({ header, columns: columnsOf(header) }));
    box.querySelector('.tools').hidden = !inputs.length;
    for (const input of inputs) input.addEventListener('input', apply);

    function apply() {
      const wanted = inputs
        .map((input) => ({ role: input.dataset.filter, text: input.value.trim().toLowerCase() }))
        .filter(({ text }) => text);
      const named = (column) => {
        const over = groups.find(({ columns }) => columns.includes(column))?.header.textContent ?? '';
        return `${over} ${headers[column].textContent} ${headers[column].dataset.about ?? ''}`.toLowerCase();
      };
      const hidden = headers.map((header, column) => {
        const filter = wanted.find(({ role }) => role === header.dataset.role);
        return Boolean(filter && header.classList.contains('n') && !named(column).includes(filter.text));
      });
      let shown = 0;
      for (const row of rows) {
        row.hidden = !wanted.every(({ role, text }) => {
          const names = headers.flatMap((header, column) =>
            header.dataset.role === role && !header.classList.contains('n') ? [plain(row.cells[column])] : []);
          return !names.length || names.some((name) => name.toLowerCase().includes(text));
        });
        shown += !row.hidden;
        hidden.forEach((away, column) => { row.cells[column].hidden = away; });
      }
      hidden.forEach((away, column) => { headers[column].hidden = away; });
      for (const { header, columns } of groups) {
        const left = columns.filter((column) => !hidden[column]).length;
        header.hidden = !left;
        header.colSpan = left || 1;
      }
      const away = hidden.filter(Boolean).length;
      found.textContent = wanted.length
        ? `${shown} of ${rows.length} rows${away ? `, ${headers.length - away} of ${headers.length} columns` : ''}`
        : '';
    }
  }

  // The indices of the columns below a shared header.
  function columnsOf(over) {
    let start = 0;
    for (const one of over.parentNode.cells) {
      if (one === over) break;
      start += one.colSpan;
    }
    return Array.from({ length: over.colSpan }, (_, place) => start + place);
  }

  function makeWalkable(box, body, headers) {
    const first = body.querySelector('td, th');
    if (!first) return;
    const overs = [];
    for (const header of box.querySelectorAll('thead .over')) {
      for (const column of columnsOf(header)) if (!headers[column].dataset.about) overs[column] = plain(header);
    }
    // The cells can have the focus, so the box around them need not.
    box.querySelector('.scroll').removeAttribute('tabindex');
    first.tabIndex = 0;
    let current = first;
    body.addEventListener('focusin', ({ target }) => {
      current.tabIndex = -1;
      current = target;
      current.tabIndex = 0;
      show(target);
    });
    body.addEventListener('focusout', hide);
    body.addEventListener('mouseover', ({ target }) => show(target.closest('td, th')));
    body.addEventListener('mouseleave', hide);
    body.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') hide();
      const next = neighbour(event.key, current);
      if (!next) return;
      event.preventDefault();
      next.tabIndex = -1;
      next.focus();
    });

    function neighbour(key, cell) {
      const step = { ArrowRight: 'nextElementSibling', ArrowLeft: 'previousElementSibling' }[key];
      if (step) {
        let next = cell[step];
        while (next?.hidden) next = next[step];
        return next;
      }
      const row = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[key];
      if (!row) return null;
      let next = cell.parentNode[row];
      while (next?.hidden) next = next[row];
      return next?.cells[cell.cellIndex];
    }

    function show(cell) {
      if (!cell || cell.dataset.v === undefined) return hide();
      const names = [...cell.parentNode.cells].filter((one) => one.scope === 'row').map(plain);
      const header = headers[cell.cellIndex];
      const named = header.dataset.about ?? plain(header.querySelector('.sort'));
      const interval = cell.querySelector('.ci')?.textContent ?? '';
      const badges = [...cell.querySelectorAll('.badge')].map((badge) => badge.title);
      tip.replaceChildren(
        line([...names, overs[cell.cellIndex], named].filter(Boolean).join(' · ')),
        line([plain(cell) + interval, ...badges].join(', '), 'strong'),
      );
      place(cell);
    }
  }

  function line(text, tag = 'span') {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  }

  function place(cell) {
    tip.hidden = false;
    const { left, right, top, bottom } = cell.getBoundingClientRect();
    const width = tip.offsetWidth;
    const middle = (left + right - width) / 2;
    tip.style.left = `${Math.max(8, Math.min(middle, document.documentElement.clientWidth - width - 8))}px`;
    const above = top - tip.offsetHeight - 6;
    tip.style.top = `${above > 4 ? above : bottom + 6}px`;
  }

  function hide() {
    tip.hidden = true;
  }

  addEventListener('scroll', hide, { capture: true, passive: true });
})();
