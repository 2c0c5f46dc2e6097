//! Reading the heads of HTTP/1 messages, a byte at a time and without a branch.
//!
//! A table says what each byte leads to, so the verifier of the kernel sees one path through a loop however many ways
//! there are through a head. What is read is strict: a line that ends otherwise than by CR LF, or a first line that is not
//! as RFC 9112 has it, is no head, and stays none.

/// Bytes of a response in which its head is looked for. What is behind is not known, which is always on the safe side.
pub const WINDOW: u32 = 512;

/// States there is room for.
const STATES: usize = 128;
/// Kinds of bytes that are told apart.
const CLASSES: usize = 64;

/// The status line has ended, and the status is final: 2xx to 5xx.
pub const FINAL: u32 = 1;
/// The status line has ended, and the status is an interim one, other than 101.
pub const INTERIM: u32 = 1 << 1;
/// The status is 101: what follows is another protocol.
pub const SWITCH: u32 = 1 << 2;
/// The head has a field `Transfer-Encoding`.
pub const CODED: u32 = 1 << 3;
/// The length of the body cannot be told from `Content-Length`.
pub const UNSIZED: u32 = 1 << 4;
/// The head has a field `Connection` that begins with `close`.
pub const CLOSE: u32 = 1 << 5;
/// The head has a field `Upgrade`.
pub const UPGRADE: u32 = 1 << 6;

/// Bits of an action that are findings, of the list above.
const FINDINGS: u32 = 0x7f;
/// The byte belongs to the first line.
const OPENING: u32 = 8;
/// The byte belongs to the head.
const INSIDE: u32 = 9;
/// The byte is a digit of the content length.
const DIGIT: u32 = 10;

/// What each byte leads to, and what is done on the way.
#[derive(Debug)]
pub struct Table {
    class: [u8; 256],
    next: [[u8; CLASSES]; STATES],
    action: [u32; STATES],
}

/// The one table there is. The programs keep it in memory of theirs.
pub const TABLE: Table = Builder::table();

/// How far a head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Reading {
    state: u32,
    /// What was found so far: [`FINAL`] and the others.
    pub found: u32,
    /// Bytes of the first line so far, CR LF included.
    pub opening: u32,
    /// Bytes of the head so far, but for its very last.
    inside: u32,
    /// The value of `Content-Length` so far.
    pub content: u32,
}

impl Reading {
    /// At the beginning of a request.
    pub const REQUEST: Self = Self::from(REQUEST);
    /// At the beginning of a response.
    pub const RESPONSE: Self = Self::from(RESPONSE);

    const fn from(state: u8) -> Self {
        Self { state: state as u32, found: 0, opening: 0, inside: 0, content: 0 }
    }

    /// Takes the next byte.
    #[inline(always)]
    pub fn step(&mut self, table: &Table, byte: u8) {
        let class = u32::from(table.class[byte as usize]);
        // Two steps of their own: Debian's 6.1.192 forgets what it knows of a number that is put together with `|`.
        let row = &table.next[(self.state & (STATES as u32 - 1)) as usize];
        let state = u32::from(row[(class & (CLASSES as u32 - 1)) as usize]) & (STATES as u32 - 1);
        let action = table.action[state as usize];
        self.state = state;
        self.found |= action & FINDINGS;
        self.opening += (action >> OPENING) & 1;
        self.inside += (action >> INSIDE) & 1;
        let digit = 0_u32.wrapping_sub((action >> DIGIT) & 1);
        let more = self.content.wrapping_mul(9).wrapping_add(u32::from(byte)).wrapping_sub(0x30);
        self.content = self.content.wrapping_add(more & digit);
    }

    /// Whether the whole head has been read.
    #[inline(always)]
    pub const fn is_complete(&self) -> bool {
        self.state == END as u32
    }

    /// Bytes of a head that has been read whole, the empty line included.
    #[inline(always)]
    pub const fn length(&self) -> u32 {
        self.inside + 1
    }

    /// Whether this is no head.
    #[inline(always)]
    pub const fn is_refused(&self) -> bool {
        self.state == REFUSED as u32
    }

    /// Whether anything was found of all in `what`.
    #[inline(always)]
    pub const fn has(&self, what: u32) -> bool {
        self.found & what != 0
    }
}

// States. Those of a word are numbered through, from the one before its first letter on.
const REFUSED: u8 = 0;
const END: u8 = 1;
/// At the beginning of a line behind the first.
const LINE: u8 = 2;
/// Somewhere in a line about which nothing more is to be found out.
const TEXT: u8 = 3;
/// Behind the CR of a line.
const TEXT_CR: u8 = 4;
/// Behind the CR of the empty line.
const LAST_CR: u8 = 5;
const REQUEST: u8 = 6;
/// In a method that is not, or not yet, CONNECT.
const METHOD: u8 = 7;
/// Behind a space, before the target.
const TARGET: u8 = 8;
const IN_TARGET: u8 = 9;
/// `HTTP/1.` of a request, up to 17.
const VERSION: u8 = 10;
const VERSION_DIGIT: u8 = 18;
const RESPONSE: u8 = 19;
/// `HTTP/1.` of a response, up to 26.
const STATUS_VERSION: u8 = 26;
const STATUS_SPACE: u8 = 27;
const STATUS: u8 = 28;
/// Behind the first and second digit of a final status, and behind all three.
const FINAL_1: u8 = 29;
const FINAL_2: u8 = 30;
const FINAL_3: u8 = 31;
const REASON: u8 = 32;
const FINAL_CR: u8 = 33;
const FINAL_LINE: u8 = 34;
const INTERIM_1: u8 = 35;
const INTERIM_2: u8 = 36;
const INTERIM_3: u8 = 37;
const INTERIM_REASON: u8 = 38;
const INTERIM_CR: u8 = 39;
const INTERIM_LINE: u8 = 40;
const SWITCHING: u8 = 41;
/// Behind the second digit of 10x.
const INTERIM_10: u8 = 42;
/// `CONNECT`, behind its first letter and so on.
const CONNECT: u8 = 43;
/// `CON`, common to two fields, behind its first letter and so on.
const CON: u8 = 50;
/// `TENT-LENGTH:`
const TENT_LENGTH: u8 = 53;
/// `NECTION:`
const NECTION: u8 = 65;
/// `TRANSFER-ENCODING:`
const TRANSFER: u8 = 73;
const CODED_FIELD: u8 = 90;
/// `UPGRADE:`
const UPGRADING: u8 = 91;
const UPGRADE_FIELD: u8 = 98;
/// Before the content length.
const SIZE: u8 = 99;
/// Behind its first to ninth digit.
const SIZE_1: u8 = 100;
const SIZE_9: u8 = 108;
const SIZE_END: u8 = 109;
const ODD_SIZE: u8 = 110;
const ODD_SIZE_CR: u8 = 111;
/// Before the first option of a connection.
const OPTION: u8 = 112;
/// `CLOSE`
const CLOSING: u8 = 113;
const CLOSE_OPTION: u8 = 117;
const LAST: u8 = 118;

// Classes: 0 is what no rule names, then the letters, large and small, then the rest.
// X, Y and Z, which are in no word, share one.
const LETTERS: u8 = 24;
const LARGE: u8 = 1;
const SMALL: u8 = LARGE + LETTERS;
const ZERO: u8 = SMALL + LETTERS;
const ONE: u8 = ZERO + 1;
const MORE: u8 = ONE + 1;
const HIGH: u8 = MORE + 1;
const SPACE: u8 = HIGH + 1;
const TAB: u8 = SPACE + 1;
const CR: u8 = TAB + 1;
const LF: u8 = CR + 1;
const MARK: u8 = LF + 1;
const CONTROL: u8 = MARK + 4;

const _: () = assert!(LAST as usize <= STATES && (CONTROL as usize) < CLASSES);

/// The characters of class [`MARK`] and the three behind it.
const MARKS: [u8; 4] = *b"/.-:";

struct Builder(Table);

impl Builder {
    const fn table() -> Table {
        let empty =
            Table { class: [0; 256], next: [[REFUSED; CLASSES]; STATES], action: [0; STATES] };
        let mut builder = Self(empty);
        builder.classes();
        builder.shared_lines();
        builder.request_line();
        builder.status_line();
        builder.fields();
        builder.actions();
        builder.0
    }

    const fn classes(&mut self) {
        let mut byte = 0;
        while byte < 256 {
            self.0.class[byte] = class_of(byte as u8);
            byte += 1;
        }
    }

    /// One transition.
    const fn on(&mut self, state: u8, class: u8, next: u8) -> &mut Self {
        self.0.next[state as usize][class as usize] = next;
        self
    }

    /// A transition for each digit.
    const fn digits(&mut self, state: u8, next: u8) -> &mut Self {
        self.on(state, ZERO, next).on(state, ONE, next).on(state, MORE, next).on(state, HIGH, next)
    }

    /// Whatever comes leads to `text`, but for the end of the line.
    const fn line(&mut self, state: u8, text: u8, cr: u8) -> &mut Self {
        let mut class = 0;
        while class < CLASSES as u8 {
            self.on(state, class, text);
            class += 1;
        }
        self.on(state, CR, cr).on(state, LF, REFUSED)
    }

    /// What begins a line; any other byte than these makes it a line without interest.
    const fn word(&mut self, before: u8, word: &[u8], states: u8, after: u8) {
        let mut place = 0;
        let mut state = before;
        while place < word.len() {
            let next = if place + 1 == word.len() { after } else { states + place as u8 };
            if place > 0 {
                self.line(state, TEXT, TEXT_CR);
            }
            let class = class_of(word[place]);
            self.on(state, class, next);
            if class >= LARGE && class < SMALL {
                self.on(state, class + LETTERS, next);
            }
            state = next;
            place += 1;
        }
    }

    /// A word that must be exactly this.
    const fn exactly(&mut self, before: u8, word: &[u8], states: u8) {
        let mut place = 0;
        let mut state = before;
        while place < word.len() {
            let next = states + place as u8;
            self.on(state, class_of(word[place]), next);
            state = next;
            place += 1;
        }
    }

    const fn shared_lines(&mut self) {
        let mut class = 0;
        while class < CLASSES as u8 {
            self.on(END, class, END);
            class += 1;
        }
        self.line(LINE, TEXT, LAST_CR);
        self.line(TEXT, TEXT, TEXT_CR);
        self.on(TEXT_CR, LF, LINE).on(LAST_CR, LF, END);
    }

    const fn request_line(&mut self) {
        let mut letter = 0;
        while letter < LETTERS {
            let class = LARGE + letter;
            self.on(REQUEST, class, METHOD).on(METHOD, class, METHOD);
            let mut read = 0;
            while read < 7 {
                self.on(CONNECT + read, class, METHOD);
                read += 1;
            }
            letter += 1;
        }
        self.exactly(REQUEST, b"CONNECT", CONNECT);
        self.on(METHOD, SPACE, TARGET);
        let mut read = 0;
        // The whole word asks for a tunnel and is refused.
        while read < 6 {
            self.on(CONNECT + read, SPACE, TARGET);
            read += 1;
        }
        self.line(TARGET, IN_TARGET, REFUSED);
        self.on(TARGET, SPACE, REFUSED).on(TARGET, CONTROL, REFUSED).on(TARGET, TAB, REFUSED);
        self.line(IN_TARGET, IN_TARGET, REFUSED);
        self.on(IN_TARGET, CONTROL, REFUSED).on(IN_TARGET, TAB, REFUSED);
        self.on(IN_TARGET, SPACE, VERSION);
        self.exactly(VERSION, b"HTTP/1.", VERSION + 1);
        let version = VERSION + 7;
        self.on(version, ZERO, VERSION_DIGIT).on(version, ONE, VERSION_DIGIT);
        self.on(VERSION_DIGIT, CR, TEXT_CR);
    }

    const fn status_line(&mut self) {
        self.exactly(RESPONSE, b"HTTP/1.", RESPONSE + 1);
        self.on(STATUS_VERSION, ZERO, STATUS_SPACE).on(STATUS_VERSION, ONE, STATUS_SPACE);
        self.on(STATUS_SPACE, SPACE, STATUS);

        self.on(STATUS, MORE, FINAL_1).digits(FINAL_1, FINAL_2).digits(FINAL_2, FINAL_3);
        self.on(FINAL_3, SPACE, REASON).on(FINAL_3, CR, FINAL_CR);
        self.line(REASON, REASON, FINAL_CR).on(REASON, CONTROL, REFUSED);
        self.on(FINAL_CR, LF, FINAL_LINE).line(FINAL_LINE, TEXT, LAST_CR);

        self.on(STATUS, ONE, INTERIM_1).digits(INTERIM_1, INTERIM_2).digits(INTERIM_2, INTERIM_3);
        self.on(INTERIM_1, ZERO, INTERIM_10).digits(INTERIM_10, INTERIM_3);
        self.on(INTERIM_10, ONE, SWITCHING);
        self.on(INTERIM_3, SPACE, INTERIM_REASON).on(INTERIM_3, CR, INTERIM_CR);
        self.line(INTERIM_REASON, INTERIM_REASON, INTERIM_CR);
        self.on(INTERIM_REASON, CONTROL, REFUSED);
        self.on(INTERIM_CR, LF, INTERIM_LINE).line(INTERIM_LINE, TEXT, LAST_CR);
    }

    const fn fields(&mut self) {
        let lines = [LINE, FINAL_LINE, INTERIM_LINE];
        let mut line = 0;
        while line < lines.len() {
            self.word(lines[line], b"CON", CON, CON + 2);
            self.word(lines[line], b"TRANSFER-ENCODING:", TRANSFER, CODED_FIELD);
            self.word(lines[line], b"UPGRADE:", UPGRADING, UPGRADE_FIELD);
            line += 1;
        }
        self.line(CON + 2, TEXT, TEXT_CR);
        self.word(CON + 2, b"TENT-LENGTH:", TENT_LENGTH, SIZE);
        self.word(CON + 2, b"NECTION:", NECTION, OPTION);
        self.line(CODED_FIELD, TEXT, TEXT_CR);
        self.line(UPGRADE_FIELD, TEXT, TEXT_CR);

        self.line(SIZE, ODD_SIZE, ODD_SIZE_CR).on(SIZE, SPACE, SIZE).on(SIZE, TAB, SIZE);
        self.digits(SIZE, SIZE_1);
        let mut digit = SIZE_1;
        while digit <= SIZE_9 {
            self.line(digit, ODD_SIZE, TEXT_CR).on(digit, SPACE, SIZE_END).on(digit, TAB, SIZE_END);
            if digit < SIZE_9 {
                self.digits(digit, digit + 1);
            }
            digit += 1;
        }
        self.line(SIZE_END, ODD_SIZE, TEXT_CR);
        self.on(SIZE_END, SPACE, SIZE_END).on(SIZE_END, TAB, SIZE_END);
        self.line(ODD_SIZE, ODD_SIZE, TEXT_CR).on(ODD_SIZE_CR, LF, LINE);

        self.line(OPTION, TEXT, TEXT_CR).on(OPTION, SPACE, OPTION).on(OPTION, TAB, OPTION);
        self.word(OPTION, b"CLOSE", CLOSING, CLOSE_OPTION);
        self.line(CLOSE_OPTION, TEXT, TEXT_CR);
    }

    const fn actions(&mut self) {
        let mut state = 0;
        while state < LAST {
            let mut action = match state {
                FINAL_LINE => FINAL,
                INTERIM_LINE => INTERIM,
                SWITCHING => SWITCH,
                ODD_SIZE | ODD_SIZE_CR => UNSIZED,
                CODED_FIELD => CODED,
                UPGRADE_FIELD => UPGRADE,
                CLOSE_OPTION => CLOSE,
                SIZE_1..=SIZE_9 => 1 << DIGIT,
                _ => 0,
            };
            if state > RESPONSE && state <= INTERIM_10 {
                action |= 1 << OPENING;
            }
            if state != REFUSED && state != END {
                action |= 1 << INSIDE;
            }
            self.0.action[state as usize] = action;
            state += 1;
        }
    }
}

const fn class_of(byte: u8) -> u8 {
    match byte {
        b'A'..=b'W' => LARGE + (byte - b'A'),
        b'X'..=b'Z' => LARGE + (LETTERS - 1),
        b'a'..=b'w' => SMALL + (byte - b'a'),
        b'x'..=b'z' => SMALL + (LETTERS - 1),
        b'0' => ZERO,
        b'1' => ONE,
        b'2'..=b'5' => MORE,
        b'6'..=b'9' => HIGH,
        b' ' => SPACE,
        b'\t' => TAB,
        b'\r' => CR,
        b'\n' => LF,
        0..=31 | 127 => CONTROL,
        _ => {
            let mut mark = 0;
            while mark < 4 {
                if MARKS[mark as usize] == byte {
                    return MARK + mark;
                }
                mark += 1;
            }
            0
        }
    }
}
