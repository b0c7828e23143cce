"""The page's texts in English and Vietnamese, and the formats of numbers and times."""

from datetime import datetime

LANGUAGES = {"en": "English", "vi": "Tiếng Việt"}
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

ENGLISH = {
    "title": "Listening for danger",
    "trust": "It misses dangers and mistakes harmless sounds for them. Do not trust a life to it.",
    "alarm": "DANGER: {what}",
    "no alarm": "No alarm.",
    "now": "Now",
    "level": "Level",
    "score": "Danger score",
    "score of": "{score}, alarm from {threshold}",
    "tags": "Sounds like",
    "no tags": "nothing yet",
    "why": "Why no alarm",
    "learnt": "Learnt from your verdicts ({count}): on the shipped evaluation it finds {found} instead of "
    "{found_before} % of dangers, with {wrong} instead of {wrong_before} % false alarms. listen.py --forget goes back.",
    "last events": "Recent events",
    "no events": "No events yet. Every detected danger appears here, whether it raised an alarm or not.",
    "event": "{category} at {source}, {time}",
    "seconds": "{seconds} s",
    "was alarm": "alarm",
    "was none": "no alarm: {why}",
    "is right": "Right",
    "is false": "False alarm",
    "verdict": "Was that right?",
    "saved": "Saved. Press again to take it back.",
    "taken back": "Taken back.",
    "not saved": "Not saved: {why}",
    "sound": "Sound of the event",
    "no sound": "no sound was recorded",
    "picture": "Picture: highest score {score}, alarm from {threshold}",
    "pictures": "In the pictures, time runs to the right and, if sound was recorded, frequency upwards. White: the "
    "score; dashed: the alarm threshold; orange: the event.",
    "offline": "listen.py does not respond. What is shown here is out of date.",
    "no script": "This page needs JavaScript.",
    "password": "Password",
    "log in": "Log in",
    "log out": "Log out",
    "wrong": "That is not the password.",
    "wait": "Too many wrong passwords: try again in {minutes} min.",
    "expired": "The page was open too long: try again.",
    "state connecting": "connecting",
    "state listening": "listening",
    "state silent": "silent",
    "state stalled": "no sound",
    "state offline": "not connected",
    "state done": "finished",
    "why alarm": "There is one: {category} since {since}.",
    "why connecting": "Connecting: no sound has come yet.",
    "why starting": "Starting: waiting for the first three seconds of sound.",
    "why stalled": "No more sound arrives. Retrying.",
    "why offline": "Not connected: {problem}. Retrying.",
    "why done": "Finished.",
    "why silent": "Silence: nothing is louder than −60 dB.",
    "why behind": "The computer is too slow: sound is waiting to be processed.",
    "why learnt": "Silenced: similar to sounds that you called false alarms ({alarms}).",
    "why below": "The score is below the threshold.",
    "why averaging": "The newest three seconds are above the threshold, but their mean with those before is not yet.",
    "why too short": "It has not lasted {seconds} s yet.",
    "why category off": "{category}: switched off.",
    "why below the category's threshold": "{category}: below that category's threshold.",
    "why not confirmed": "{category}: not confirmed yet, {windows} of {needed} steps.",
    "why quiet hours": "{category}: quiet hours until {until}.",
    "why cool-down": "{category}: cool-down, {left} s left.",
    "reason category off": "category off",
    "reason below the category's threshold": "below the category's threshold",
    "reason not confirmed": "not confirmed",
    "reason quiet hours": "quiet hours",
    "reason cool-down": "cool-down",
}

VIETNAMESE = {
    "title": "Lắng nghe nguy hiểm",
    "trust": "Nó bỏ sót nguy hiểm và báo động nhầm khi âm thanh vô hại. Đừng phó thác tính mạng cho nó.",
    "alarm": "NGUY HIỂM: {what}",
    "no alarm": "Không có báo động.",
    "now": "Bây giờ",
    "level": "Mức âm",
    "score": "Điểm nguy hiểm",
    "score of": "{score}, báo động từ {threshold}",
    "tags": "Nghe giống",
    "no tags": "chưa có gì",
    "why": "Vì sao không báo động",
    "learnt": "Đã học từ nhận xét của bạn ({count}): trên bộ đánh giá kèm theo, phát hiện {found} thay vì "
    "{found_before} % âm thanh nguy hiểm, báo động nhầm {wrong} thay vì {wrong_before} %. Lệnh listen.py --forget đưa "
    "về như ban đầu.",
    "last events": "Các sự kiện gần đây",
    "no events": "Chưa có sự kiện nào. Âm thanh nghe như nguy hiểm sẽ hiện ở đây, dù có báo động hay không.",
    "event": "{category} ở {source}, {time}",
    "seconds": "{seconds} giây",
    "was alarm": "báo động",
    "was none": "không báo động: {why}",
    "is right": "Đúng",
    "is false": "Báo động nhầm",
    "verdict": "Có đúng không?",
    "saved": "Đã lưu. Nhấn lần nữa để rút lại.",
    "taken back": "Đã rút lại.",
    "not saved": "Chưa lưu được: {why}",
    "sound": "Âm thanh của sự kiện",
    "no sound": "không giữ âm thanh",
    "picture": "Hình: điểm cao nhất {score}, báo động từ {threshold}",
    "pictures": "Trong hình, thời gian chạy sang phải; nơi có giữ âm thanh, cao độ hướng lên trên. Trắng: điểm số; nét "
    "đứt: ngưỡng báo động; cam: sự kiện.",
    "offline": "listen.py không trả lời. Những gì hiện ở đây đã cũ.",
    "no script": "Trang này cần JavaScript.",
    "password": "Mật khẩu",
    "log in": "Đăng nhập",
    "log out": "Đăng xuất",
    "wrong": "Mật khẩu không đúng.",
    "wait": "Sai mật khẩu quá nhiều lần: hãy thử lại sau {minutes} phút.",
    "expired": "Trang đã mở quá lâu: hãy thử lại.",
    "state connecting": "đang kết nối",
    "state listening": "đang nghe",
    "state silent": "im lặng",
    "state stalled": "không có âm thanh đến",
    "state offline": "chưa kết nối",
    "state done": "đã nghe hết",
    "why alarm": "Đang báo động: {category} từ {since}.",
    "why connecting": "Đang kết nối: chưa có âm thanh nào đến.",
    "why starting": "Đang bắt đầu: đang nghe ba giây đầu tiên.",
    "why stalled": "Không còn âm thanh đến nữa. Sẽ thử lại.",
    "why offline": "Chưa kết nối: {problem}. Sẽ thử lại.",
    "why done": "Đã nghe hết.",
    "why silent": "Im lặng: không có gì to hơn −60 dB.",
    "why behind": "Máy không theo kịp: âm thanh đang chờ được nghe.",
    "why learnt": "Im lặng từ khi đã học: giống âm thanh từng được cho là báo động nhầm ({alarms}).",
    "why below": "Điểm thấp hơn ngưỡng.",
    "why averaging": "Ba giây mới nhất vượt ngưỡng, trung bình cùng các giây trước thì chưa.",
    "why too short": "Chưa kéo dài đủ {seconds} giây.",
    "why category off": "{category}: đã tắt.",
    "why below the category's threshold": "{category}: thấp hơn ngưỡng của loại này.",
    "why not confirmed": "{category}: chưa được xác nhận, {windows} trên {needed} bước.",
    "why quiet hours": "{category}: giờ yên tĩnh đến {until}.",
    "why cool-down": "{category}: thời gian chờ sau báo động, còn {left} giây.",
    "reason category off": "loại đã tắt",
    "reason below the category's threshold": "thấp hơn ngưỡng của loại",
    "reason not confirmed": "chưa được xác nhận",
    "reason quiet hours": "giờ yên tĩnh",
    "reason cool-down": "thời gian chờ sau báo động",
}

_TEXTS = {"en": ENGLISH, "vi": VIETNAMESE}


class Texts:
    """The texts of one language."""

    def __init__(self, language: str):
        """``language``: a key of LANGUAGES."""
        self.language, self._texts = language, _TEXTS[language]

    def __call__(self, key: str, **values: object) -> str:
        """Return the text of a key with its placeholders filled in."""
        return self._texts[key].format(**values)

    def reason(self, reason: str) -> str:
        """Translate why a logged event was no alarm; an unknown reason is returned as it was logged."""
        return self._texts.get(f"reason {reason}", reason)

    def number(self, value: float, digits: int) -> str:
        """Format a number with the language's decimal mark and a real minus sign."""
        text = f"{value:.{digits}f}".replace("-", "−")
        return text.replace(".", ",") if self.language == "vi" else text

    def time(self, time: datetime, today: datetime) -> str:
        """Format the time of day, with the date if it was not today."""
        clock = f"{time:%H:%M:%S}"
        if time.date() == today.date():
            return clock
        date = f"{time:%d/%m/%Y}" if self.language == "vi" else f"{time.day} {_MONTHS[time.month - 1]} {time.year}"
        return f"{date}, {clock}"


def choose_language(chosen: str, accepted: str) -> str:
    """Return a key of LANGUAGES.

    Args:
        chosen: The language that was chosen before, if any.
        accepted: The browser's header Accept-Language, which decides otherwise; the default is English.
    """
    if chosen in LANGUAGES:
        return chosen
    preferred = []
    for part in accepted.split(",")[:20]:
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        preferred.append((-weight, len(preferred), tag.split("-")[0].lower()))
    return next((tag for weight, _, tag in sorted(preferred) if tag in LANGUAGES and weight < 0), "en")
